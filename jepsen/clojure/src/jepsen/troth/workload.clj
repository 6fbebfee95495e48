(ns jepsen.troth.workload
  "Jepsen's own bank and list-append, spread over the participants' databases: account or key k is
  at participant k mod n, there under the number k div n. Reads lock the rows they read (FOR
  SHARE), so that strict serializability is promised."
  (:require [jepsen.checker :as checker]
            [jepsen.tests.bank :as bank]
            [jepsen.tests.cycle.append :as append]
            [jepsen.troth.client :as client]))

(def accounts-each "Accounts in each database; db.clj makes them." 8)
(def balance "In each account at the beginning." 100)

(defn place
  "[participant number-there] of an account or key."
  [participants k]
  [(nth participants (mod k (count participants))) (quot k (count participants))])

;; Bank

(defn bank-works
  [participants {:keys [f value]}]
  (case f
    :read     (for [p participants] [p ["lock-balances" 0 0]])
    :transfer (let [{:keys [from to amount]} value]
                (for [[k n] (sort [[from (- amount)] [to amount]])]
                  (let [[p there] (place participants k)] [p ["add" there n]])))))

(defn bank-value
  "A read's results are, per participant, the balances there, by number."
  [participants {:keys [f value]} results]
  (case f
    :transfer value
    :read     (into {} (for [[i balances] (map-indexed vector results)
                             [there amount] (map-indexed vector balances)]
                         [(+ (* there (count participants)) i) amount]))))

(defn bank
  [{:keys [participants bin]}]
  (let [accounts (* accounts-each (count participants))]
    {:accounts     (vec (range accounts))
     :total-amount (* balance accounts)
     :max-transfer 5
     :client       (client/client bin
                                  (partial bank-works participants)
                                  (partial bank-value participants))
     :generator    (bank/generator)
     :checker      (checker/compose {:bank (bank/checker {:negative-balances? false})})}))

;; List-append

(defn append-works
  [participants {:keys [value]}]
  (for [[f k v] value]
    (let [[p there] (place participants k)]
      [p (if (= :append f) ["append" there v] ["lock-read" there 0])])))

(defn append-value
  [{:keys [value]} results]
  (mapv (fn [[f k v] result] [f k (if (= :r f) (vec result) v)]) value results))

(defn append-workload
  [{:keys [participants bin]}]
  (let [test (append/test {:key-count          (* 4 (count participants))
                           :max-txn-length     4
                           :max-writes-per-key 32
                           :consistency-models [:strict-serializable]})]
    {:client    (client/client bin
                               (partial append-works participants)
                               append-value)
     :generator (:generator test)
     :checker   (:checker test)}))

(def workloads
  "By the names of --workload."
  {"bank" bank, "append" append-workload})
