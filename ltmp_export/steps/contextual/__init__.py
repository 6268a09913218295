"""Behind a block, the patches that matter stay, and a few of the others stand for the rest."""
