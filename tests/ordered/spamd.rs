//! SpamAssassin's children under our master, and its own client.
