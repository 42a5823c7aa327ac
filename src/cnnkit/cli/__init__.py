"""The command line: one file per verb. Verbs import torch and the like only when they run."""
