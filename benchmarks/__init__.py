"""What measures speed and memory: one script a question, one small table."""
