-- Facts are pruned by age, but for the newest of each plugin and type.
CREATE INDEX plugin_fact_by_time ON plugin_fact (created_at_ms);
CREATE INDEX plugin_fact_by_type ON plugin_fact (plugin, fact_type, fact_seq);
