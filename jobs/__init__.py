"""Does the work: runs jobs in their lanes and settles what they cost."""
