"""Records: their schema and keys, the store that keeps them, the journal that makes a sweep resumable."""
