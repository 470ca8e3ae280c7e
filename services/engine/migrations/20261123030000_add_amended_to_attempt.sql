-- Whether what its plugin said after its answer is known: that is taken once.
ALTER TABLE attempt ADD COLUMN amended INTEGER NOT NULL DEFAULT 0;
