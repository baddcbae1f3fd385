"""A family that tests add to the catalog: kinds of flowers from four lengths."""
