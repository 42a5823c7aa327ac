"""What is wrong with a data set of images: each file, the files together, and moving the harmful ones out."""
