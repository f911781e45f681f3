SELECT
  "t10"."row of the file",
  CASE
    WHEN NOT (
      (
        "t10"."registered_at" + INTERVAL '{days}' DAY
      ) <= TIMESTAMP '{data_ends}'
    )
    THEN 'window not over yet'
    WHEN "t10"."seconds" IS NULL
    THEN 'no listen in the window'
    WHEN "t10"."seconds" < {min_seconds}
    THEN 'under the activity rule'
    ELSE CAST(NULL AS TEXT)
  END AS "why there is no label",
  "t10"."top_genre",
  "t10"."seconds",
  COALESCE("t10"."genres in the window", 0) AS "genres in the window"
FROM (
  SELECT
    "t9".*
    EXCLUDE ("row of the file_right")
  FROM (
    SELECT
      "t7"."row of the file",
      "t7"."registered_at",
      "t8"."row of the file" AS "row of the file_right",
      "t8"."genres in the window",
      "t8"."seconds",
      "t8"."top_genre"
    FROM (
      SELECT
        CAST("t0"."row of the file" AS INT) AS "row of the file",
        "t0"."registered_at"
      FROM "registrations" AS "t0"
    ) AS "t7"
    LEFT OUTER JOIN (
      SELECT
        *
      FROM (
        SELECT
          *
        FROM "sums by user" AS "t1"
      ) AS "t3"
      UNION ALL
      SELECT
        *
      FROM (
        SELECT
          "t2"."row of the file",
          "t2"."genres in the window",
          "t2"."seconds",
          "t2"."top_genre"
        FROM "final sums by user" AS "t2"
      ) AS "t4"
    ) AS "t8"
      ON "t7"."row of the file" = "t8"."row of the file"
  ) AS "t9"
) AS "t10"
ORDER BY
  "t10"."row of the file" ASC
