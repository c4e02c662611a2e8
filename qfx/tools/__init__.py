"""Outside programs, one module each: it runs the program, keeps its log and reports its first real error."""
