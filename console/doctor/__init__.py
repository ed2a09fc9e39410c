"""`upres doctor`: looks at everything that a running upres needs, and says how to mend what is wrong."""
