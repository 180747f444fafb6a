"""Documents from a source into a store: reading, chunking, and the job that does it all."""
