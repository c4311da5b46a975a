"""Training objectives behind one interface: a file in this folder with `make(net, ...)`."""
