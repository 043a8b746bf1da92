"""Photos: the only opener of image files, decoding in processes, and what is done to pixels."""
