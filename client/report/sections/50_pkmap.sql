-- title: The pkmap window
-- about: Mapped slots, those without a user that wait for a flush included: the most within each point, and what it ended with.
-- draw: plot
-- hold: at_end
-- unit: slots
-- needs: whole
SELECT min(:last, (op + :bucket - 1) / :bucket * :bucket) AS x, max(mapped) AS most,
  max(op << 26 | mapped) & ((1 << 26) - 1) AS at_end
FROM pkmap_occupancy WHERE machine_id = :machine GROUP BY 1 ORDER BY 1
