"""System tests: they start, kill or build whole systems, or take long. CI and `make test-all` run them."""
