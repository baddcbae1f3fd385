"""What several families read and draw by: splits, files, caches, means and pictures."""
