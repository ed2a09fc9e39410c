"""`upres doctor`: checks everything that a running upres needs, and says how to fix what is wrong."""
