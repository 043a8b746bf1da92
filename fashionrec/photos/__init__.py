"""Photos: the only code that opens image files, decoding in processes, and pixel operations."""
