"""What a training needs before there is a machine for it: memory, seconds, layouts, from shapes alone. No torch."""
