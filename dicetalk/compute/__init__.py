"""How results are computed: processes, threads, devices, signals."""
