"""qfx: fixed-point networks for small FPGAs, from PyTorch to bit-exact hardware."""
