"""Files of SQLite's: opening them, who has them, what is wrong with them."""
