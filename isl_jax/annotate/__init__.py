"""Which fields to annotate, drafts of their labels, and the folder that goes to the annotator."""
