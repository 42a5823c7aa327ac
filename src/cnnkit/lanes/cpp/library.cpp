// The functions of the library, as library.py declares them.
#include "net.hpp"
#include "team.hpp"

extern "C" {
int lanes() { return LANES; }
int64_t size_of_job() { return sizeof(Job); }
int64_t size_of_parameter() { return sizeof(Parameter); }
int64_t size_of_optimizer() { return sizeof(Optimizer); }
void* start(int threads) { return new Team<Net>(threads); }
void stop(void* team) { delete static_cast<Team<Net>*>(team); }
void train(void* team, const Job* job) { static_cast<Team<Net>*>(team)->train(*job); }
void measure(void* team, const Job* job) { static_cast<Team<Net>*>(team)->measure(*job); }
void predict(void* team, const Job* job) { static_cast<Team<Net>*>(team)->predict(*job); }
}
