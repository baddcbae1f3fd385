"""Files of auditory brainstem responses, made into rows."""
