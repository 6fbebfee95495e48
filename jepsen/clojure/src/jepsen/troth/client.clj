(ns jepsen.troth.client
  "troth-jepsen-client as a Jepsen client: a process that takes transactions as lines. What :ok,
  :fail and :info mean is settled in that program, for this suite as for the Python harness."
  (:require [clojure.edn :as edn]
            [clojure.string :as str]
            [jepsen.client :as client])
  (:import (java.io BufferedReader InputStreamReader OutputStreamWriter Writer)
           (java.lang ProcessBuilder ProcessBuilder$Redirect)
           (java.util.concurrent TimeUnit)))

(def deadline-ms "Of a transaction." 3000)
(def patience-ms "After which no answer is no answer: every call of the program has a deadline." 30000)

(defn json
  "Vectors, strings and whole numbers as JSON."
  [x]
  (cond (sequential? x) (str "[" (str/join "," (map json x)) "]")
        (string? x)     (pr-str x)
        (integer? x)    (str x)
        :else           (throw (IllegalArgumentException. (str "no JSON for " (pr-str x))))))

(defn request
  "The line that asks for a transaction. `works` are [participant [step key value]], in order."
  [works]
  (json [0 "txn" deadline-ms "applied" "read-committed" ""
         (for [[participant step] works] [participant [step]])]))

(defn answer
  "A line of the program as {:type :ok|:fail|:info, :results [[n ...] ...], :words \"...\"}; nil for
  one that is no answer yet. (Its JSON is also EDN: there is no null in it.)"
  [line]
  (let [[_ type _ results words] (edn/read-string line)]
    (when-not (= "begun" type)
      {:type (keyword type) :results results :words words})))

(defn- start
  "The program, as {:process :in :out}."
  [bin coordinator]
  (let [process (-> (ProcessBuilder. ^java.util.List
                                     [(str bin "/troth-jepsen-client")
                                      (str "--coordinators=" coordinator)])
                    (.redirectError ProcessBuilder$Redirect/INHERIT)
                    .start)]
    {:process process
     :in      (OutputStreamWriter. (.getOutputStream process))
     :out     (BufferedReader. (InputStreamReader. (.getInputStream process)))}))

(defn- converse!
  "Sends the line, waits for its answer. A program that ends, or is silent, answers :info."
  [{:keys [^Writer in ^BufferedReader out]} line]
  (let [answered (future
                   (try (doto in (.write (str line "\n")) (.flush))
                        (loop []
                          (if-let [said (.readLine out)]
                            (or (answer said) (recur))
                            {:type :info :words "the client program ended"}))
                        (catch java.io.IOException e
                          {:type :info :words (.getMessage e)})))]
    (deref answered patience-ms {:type :info :words "no answer"})))

(defrecord TrothClient [bin works value program]
  ;; `works` makes the pieces of work of an operation, `value` its :ok value from their results.
  client/Client
  (open! [this test _]
    (assoc this :program (start bin (:coordinator test))))
  (setup! [_ _])
  (invoke! [_ _ op]
    (let [said (converse! program (request (works op)))]
      (cond-> (assoc op :type (:type said))
        (= :ok (:type said))     (assoc :value (value op (:results said)))
        (not= :ok (:type said))  (assoc :error (:words said)))))
  (teardown! [_ _])
  (close! [_ _]
    (when-let [^Process process (:process program)]
      (.destroyForcibly process)
      (.waitFor process 10 TimeUnit/SECONDS))))

(defn client
  [bin works value]
  (->TrothClient bin works value nil))
