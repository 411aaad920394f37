"""What was found in an image, in the formats that viewers and tables open: one module each."""
