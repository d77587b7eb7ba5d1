"""How a command meets a person: lines that are typed, tables and progress that are read."""
