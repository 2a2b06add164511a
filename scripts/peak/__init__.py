"""The peak memory of a whole run by phase: counted on meta tensors, and measured on a CPU."""
