"""What a training needs before anybody rents a GPU: memory, arithmetic, hours."""
