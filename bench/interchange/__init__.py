"""Results of other tools: their text to records, and records to their text. Pure: nothing here opens a file."""
