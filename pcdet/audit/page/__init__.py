"""The page: one HTML file that opens without a network and says whether a student may replace its teacher."""
