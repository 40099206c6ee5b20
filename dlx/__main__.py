"""`python -m dlx`, and what torchrun starts: `torchrun --nproc-per-node 2 -m dlx train ...`."""

from dlx.cli import main

if __name__ == "__main__":
    main()
