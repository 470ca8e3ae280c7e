-- How the cell of an attempt came to be: cold, held, warm; empty where there was none, or nobody said.
ALTER TABLE attempt ADD COLUMN start_kind TEXT NOT NULL DEFAULT '';
