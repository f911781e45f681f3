SELECT
  "t1"."day",
  "t1"."listens",
  "t1"."last"
FROM (
  SELECT
    CAST("t0"."started_at" AS DATE) AS "day",
    COUNT(*) AS "listens",
    MAX("t0"."started_at") AS "last",
    COUNT(*) FILTER(WHERE
      "t0"."seconds" > 604800) AS "long",
    MAX("t0"."seconds") AS "max_seconds"
  FROM "listens" AS "t0"
  GROUP BY
    1
) AS "t1"
