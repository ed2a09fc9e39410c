"""`python -m upres`: the command `upres`, for systems where its script is not on the PATH."""

from upres.cli import main

if __name__ == "__main__":
    main(prog_name="upres")
