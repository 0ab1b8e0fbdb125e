-- title: Blocks taken from another migratetype
-- about: What the kernel's mm_page_alloc_extfrag counts: requests that found no block of their own type and mixed two types in a pageblock, or took the pageblock whole.
-- draw: plot
-- counts: yes
-- unit: blocks
SELECT lower(substr(from_type, 9) || ' for ' || substr(to_type, 9)) || CASE WHEN "whole" THEN ', whole pageblock' ELSE '' END
  AS series, min(:last, (op + :bucket - 1) / :bucket * :bucket) AS x, count(*) AS n
FROM event_steal WHERE machine_id = :machine GROUP BY 1, 2 ORDER BY 1, 2
