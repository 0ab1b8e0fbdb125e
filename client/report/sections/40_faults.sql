-- title: Page faults
-- about: By what was done about them, and the zone that the frame came from.
-- draw: plot
-- counts: yes
-- unit: faults
SELECT resolution || CASE WHEN pfn THEN ', ' || substr(zone, 6) ELSE '' END AS series,
  min(:last, (op + :bucket - 1) / :bucket * :bucket) AS x, count(*) AS n
FROM event_page_fault WHERE machine_id = :machine GROUP BY 1, 2 ORDER BY 1, 2
