-- title: What the machine was asked
-- about: Ops by name.
-- draw: plot
-- counts: yes
-- unit: ops
SELECT n.name AS series, min(:last, ((o.key & 0xffffffffff) + :bucket - 1) / :bucket * :bucket) AS x, count(*) AS n
FROM ops o JOIN op_names n ON n.code = o.code
WHERE o.key BETWEEN (:machine << 40) + 1 AND (:machine << 40) + :last GROUP BY 1, 2 ORDER BY 1, 2
