"""Local graphs of a feature's rows: their centres, their neighbours and what describes their edges."""
