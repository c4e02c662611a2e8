"""Networks made with other tools, brought into qfx."""
