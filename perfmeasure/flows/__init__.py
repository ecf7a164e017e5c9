"""What the kernel saw: packets counted per window, timings of each connection, system calls."""
