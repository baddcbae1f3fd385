"""The processes of a run: started, watched, ended, started again."""
