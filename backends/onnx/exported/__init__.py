"""A folder for others' compilers: graphs, weights in pieces, a sample with what it must give, and its checker."""
