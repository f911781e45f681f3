SELECT
  "t0"."row of the file",
  CASE
    WHEN NOT (
      (
        "t0"."registered_at" + INTERVAL '{days}' DAY
      ) <= TIMESTAMP '{data_ends}'
    )
    THEN 'window not over yet'
    WHEN "t0"."seconds" IS NULL
    THEN 'no listen in the window'
    WHEN "t0"."seconds" < {min_seconds}
    THEN 'under the activity rule'
    ELSE CAST(NULL AS TEXT)
  END AS "why there is no label",
  "t0"."top_genre",
  "t0"."seconds",
  COALESCE("t0"."genres in the window", 0) AS "genres in the window"
FROM "registrations with their sums" AS "t0"
