"""Missing events: queries, waivers and subscriptions."""
