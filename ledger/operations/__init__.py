"""Operations: finds events that never arrived, asks support for them and records the outcome."""
