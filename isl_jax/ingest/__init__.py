"""What microscopes and other programs wrote, read or refused: files to fields."""
