"""The MetaWorld benchmark (Sawyer arm, 50 tasks) as worlds."""
