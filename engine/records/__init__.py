"""What a run leaves for tables: the record, results of single images, metrics by step, what made it what it is."""
